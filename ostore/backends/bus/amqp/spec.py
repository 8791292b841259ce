"""AMQP 0-9-1 as facts, with RabbitMQ's extensions, in the form that txAMQP wants.

txAMQP ships no protocol definition. Two bits are named otherwise than in the standard's
XML: `nowait` (there `no-wait`), by which txAMQP knows that no reply will come.
"""

from __future__ import annotations

from typing import Any, Final

from txamqp import spec

TYPES: Final = {
    "b": "bit",
    "o": "octet",
    "h": "short",
    "i": "long",
    "q": "longlong",
    "s": "shortstr",
    "l": "longstr",
    "t": "table",
    "T": "timestamp",
}

FRAMES: Final = {
    "frame-method": 1,
    "frame-header": 2,
    "frame-body": 3,
    "frame-heartbeat": 8,
    "frame-end": 206,
}

# = class number properties, then: number method[*: bears content] arguments -> replies
FACTS: Final = """
= connection 10
10 start version-major:o version-minor:o server-properties:t mechanisms:l locales:l -> start-ok
11 start-ok client-properties:t mechanism:s response:l locale:s
20 secure challenge:l -> secure-ok
21 secure-ok response:l
30 tune channel-max:h frame-max:i heartbeat:h -> tune-ok
31 tune-ok channel-max:h frame-max:i heartbeat:h
40 open virtual-host:s capabilities:s insist:b -> open-ok
41 open-ok known-hosts:s
50 close reply-code:h reply-text:s class-id:h method-id:h -> close-ok
51 close-ok
60 blocked reason:s
61 unblocked
70 update-secret new-secret:l reason:s -> update-secret-ok
71 update-secret-ok
= channel 20
10 open out-of-band:s -> open-ok
11 open-ok channel-id:l
20 flow active:b -> flow-ok
21 flow-ok active:b
40 close reply-code:h reply-text:s class-id:h method-id:h -> close-ok
41 close-ok
= exchange 40
10 declare ticket:h exchange:s type:s passive:b durable:b auto-delete:b internal:b nowait:b arguments:t -> declare-ok
11 declare-ok
20 delete ticket:h exchange:s if-unused:b nowait:b -> delete-ok
21 delete-ok
30 bind ticket:h destination:s source:s routing-key:s nowait:b arguments:t -> bind-ok
31 bind-ok
40 unbind ticket:h destination:s source:s routing-key:s nowait:b arguments:t -> unbind-ok
51 unbind-ok
= queue 50
10 declare ticket:h queue:s passive:b durable:b exclusive:b auto-delete:b nowait:b arguments:t -> declare-ok
11 declare-ok queue:s message-count:i consumer-count:i
20 bind ticket:h queue:s exchange:s routing-key:s nowait:b arguments:t -> bind-ok
21 bind-ok
30 purge ticket:h queue:s nowait:b -> purge-ok
31 purge-ok message-count:i
40 delete ticket:h queue:s if-unused:b if-empty:b nowait:b -> delete-ok
41 delete-ok message-count:i
50 unbind ticket:h queue:s exchange:s routing-key:s arguments:t -> unbind-ok
51 unbind-ok
= basic 60 content-type:s content-encoding:s headers:t delivery-mode:o priority:o correlation-id:s reply-to:s expiration:s message-id:s timestamp:T type:s user-id:s app-id:s cluster-id:s
10 qos prefetch-size:i prefetch-count:h global:b -> qos-ok
11 qos-ok
20 consume ticket:h queue:s consumer-tag:s no-local:b no-ack:b exclusive:b nowait:b arguments:t -> consume-ok
21 consume-ok consumer-tag:s
30 cancel consumer-tag:s nowait:b -> cancel-ok
31 cancel-ok consumer-tag:s
40 publish* ticket:h exchange:s routing-key:s mandatory:b immediate:b
50 return* reply-code:h reply-text:s exchange:s routing-key:s
60 deliver* consumer-tag:s delivery-tag:q redelivered:b exchange:s routing-key:s
70 get ticket:h queue:s no-ack:b -> get-ok get-empty
71 get-ok* delivery-tag:q redelivered:b exchange:s routing-key:s message-count:i
72 get-empty cluster-id:s
80 ack delivery-tag:q multiple:b
90 reject delivery-tag:q requeue:b
100 recover-async requeue:b
110 recover requeue:b -> recover-ok
111 recover-ok
120 nack delivery-tag:q multiple:b requeue:b
= confirm 85
10 select nowait:b -> select-ok
11 select-ok
= tx 90
10 select -> select-ok
11 select-ok
20 commit -> commit-ok
21 commit-ok
30 rollback -> rollback-ok
31 rollback-ok
"""


def build() -> Any:
    """A txamqp.spec.Spec made of the facts."""
    made = spec.Spec(0, 9, __file__)
    for name, number in FRAMES.items():
        made.constants.add(spec.Constant(made, name, number, None, []))
    kind: Any = None
    for line in FACTS.split("\n"):
        if not line:
            continue
        said, _, replies = line.partition(" -> ")
        words = said.split()
        if words[0] == "=":
            kind = spec.Class(made, words[1], int(words[2]), "", [])
            made.classes.add(kind)
            _fields(kind.fields, words[3:])
            continue
        name = words[1].rstrip("*")
        method = spec.Method(
            kind,
            name,
            int(words[0]),
            words[1].endswith("*"),
            replies.split(),
            bool(replies),
            "",
            [],
        )
        _fields(method.fields, words[2:])
        kind.methods.add(method)
    for kind in made.classes:
        for method in kind.methods:
            method.responses = [kind.methods.byname[r] for r in method.responses]
            for reply in method.responses:
                reply.response = True
    made.post_load()
    return made


def _fields(target: Any, words: list[str]) -> None:
    for index, word in enumerate(words):
        name, _, letter = word.partition(":")
        target.add(spec.Field(name, index, TYPES[letter], []))


SPEC: Final = build()
