"""`ostore admin`: how the service is, and what keeps it well."""

from __future__ import annotations

import click

from ostore.cli.admin.asking import Administration
from ostore.cli.admin.doctor import Doctor
from ostore.cli.admin.finding import OK, PROBLEM
from ostore.cli.admin.view import Job, Node, Run, View, moment, span
from ostore.cli.console import shown, size_text
from ostore.cli.failures import Failure, Missing, Misused
from ostore.cli.options import DURATION, PATH, examples, verb
from ostore.cli.session import Session

WAIT = click.option("--wait", is_flag=True, help="Until the run has ended.")
TIMEOUT = click.option(
    "--timeout",
    type=DURATION,
    default="1d",
    show_default=True,
    help="Wait no longer, as 30s or 2h.",
)
DRY_RUN = click.option("-n", "--dry-run", is_flag=True, help="Only count.")


@click.group(
    short_help="Look after a service.",
    epilog=examples(
        "ostore admin status",
        "ostore admin nodes",
        "ostore admin doctor --role api --config /etc/ostore/api.toml",
        "ostore admin scrub --wait --cluster-secret-file ostore-data/secret",
    ),
)
def command() -> None:
    """Look after a service: its nodes, jobs and health.

    What changes something is signed with the cluster secret: see
    --cluster-secret-file.
    """


@command.command(
    "status",
    short_help="Ready or not, and how it is.",
    epilog=examples("ostore admin status"),
)
@verb
def status(session: Session) -> None:
    """Show whether the service is ready, and how it is; status 1 when it is not ready."""
    asking = Administration(session)
    reasons, view = asking.reasons(), asking.view()
    facts = {"ready": not reasons, "reasons": reasons, **view.raw}
    lines = [("service", f"ostore {view.version} at {session.client.endpoint}")]
    lines.append(("state", "; ".join(reasons) and f"NOT READY: {'; '.join(reasons)}"))
    lines[-1] = ("state", lines[-1][1] or "ready")
    lines += _summary(view)
    session.console.item(
        facts, "\n".join(f"{key + ':':<10}{shown(text)}" for key, text in lines)
    )
    if reasons:
        raise Failure(f"the service is not ready: {'; '.join(reasons)}")


def _summary(view: View) -> list[tuple[str, str]]:
    up = sum(node.state == "up" for node in view.nodes)
    others = sorted({node.state for node in view.nodes} - {"up"})
    text = f"{up} of {len(view.nodes)} up" + (
        f" ({', '.join(others)})" if others else ""
    )
    lines = [("nodes", text)]
    if view.nodes:
        least = min(view.nodes, key=lambda node: node.share)
        free, total = size_text(least.free), size_text(least.total)
        lines.append(("space", f"the fullest node has {free} of {total} free"))
        lines.append(("shards", str(sum(node.shards for node in view.nodes))))
    repairs = "none waits"
    if view.waiting:
        worst = (
            "" if view.worst is None else f"; the worst has {view.worst} shards left"
        )
        repairs = f"{view.waiting} contents wait{worst}"
    lines.append(("repairs", repairs))
    failed = [job.name for job in view.jobs if job.state == "failed"]
    if view.jobs:
        lines.append(("jobs", f"failed: {', '.join(failed)}" if failed else "well"))
    return [*lines, *(("fault", fault) for fault in view.faults)]


@command.command(
    "nodes",
    short_help="The nodes.",
    epilog=examples("ostore admin nodes", "ostore admin nodes --json"),
)
@verb
def nodes(session: Session) -> None:
    """List the nodes, with what they say of themselves."""
    view = Administration(session).view()
    if session.console.as_json:
        for node in view.raw["nodes"]:
            session.console.item(node, "")
        return
    session.console.table(
        [
            ("NODE", "STATE", "ZONE", "FREE", "OF", "SHARDS", "HEARD", "URL"),
            *(_row(node) for node in view.nodes),
        ]
    )


def _row(node: Node) -> tuple[str, ...]:
    return (
        node.id[:12],
        node.state,
        node.zone,
        size_text(node.free),
        size_text(node.total),
        str(node.shards),
        "-" if node.heard is None else f"{span(node.heard)} ago",
        node.url,
    )


@command.command(
    "jobs",
    short_help="The jobs, or one run.",
    epilog=examples("ostore admin jobs", "ostore admin jobs 4f1c2a"),
)
@click.argument("run", metavar="[ID]", required=False)
@verb
def jobs(session: Session, run: str | None) -> None:
    """List the jobs of maintenance, or show one run by its ID."""
    asking = Administration(session)
    if run is not None:
        _show(session, asking.run(run))
        return
    view, now = asking.view(), session.world.wall()
    if session.console.as_json:
        for job in view.jobs:
            session.console.item({"job": job.name, **view.raw["jobs"][job.name]}, "")
        return
    session.console.table(
        [("JOB", "LAST RUN", "ENDED", "NEXT"), *(_line(job, now) for job in view.jobs)]
    )


def _line(job: Job, now: float) -> tuple[str, ...]:
    return job.name, moment(job.last, now), job.state or "-", moment(job.next, now)


@command.command(
    "run",
    short_help="Run a job now.",
    epilog=examples("ostore admin run garbage --dry-run --wait"),
)
@click.argument("job")
@DRY_RUN
@click.option("--force", is_flag=True, help="Also when much would be moved.")
@WAIT
@TIMEOUT
@verb
def run(
    session: Session, job: str, timeout: int, *, dry_run: bool, force: bool, wait: bool
) -> None:
    """Run JOB now on the whole cluster: retention, orphans, garbage, scrub and others.

    `ostore admin jobs` lists them.
    """
    asking = Administration(session)
    _begun(session, asking, job, timeout, dry_run=dry_run, force=force, wait=wait)


@command.command(
    "scrub",
    short_help="Read and check all that is stored.",
    epilog=examples("ostore admin scrub --wait"),
)
@DRY_RUN
@WAIT
@TIMEOUT
@verb
def scrub(session: Session, timeout: int, *, dry_run: bool, wait: bool) -> None:
    """Have everything that is stored read and checked; what is rotten is put back."""
    asking = Administration(session)
    _begun(session, asking, "scrub", timeout, dry_run=dry_run, wait=wait)


@command.command(
    "repair",
    short_help="Look for missing shards.",
    epilog=examples("ostore admin repair --wait"),
)
@WAIT
@TIMEOUT
@verb
def repair(session: Session, timeout: int, *, wait: bool) -> None:
    """Have missing shards looked for, and put back; --wait until none waits.

    What reads and writes find missing is put back without this.
    """
    asking = Administration(session)
    job = asking.view().job("census", "scrub") or "scrub"
    _begun(session, asking, job, timeout, wait=wait)
    waited = 0.0
    while wait and (waiting := asking.view().waiting):
        if waited >= timeout:
            raise Failure(f"{waiting} contents still wait; `ostore admin nodes`")
        waited += session.client.rest(1.0)


def _begun(
    session: Session,
    asking: Administration,
    job: str,
    timeout: int,
    *,
    dry_run: bool = False,
    force: bool = False,
    wait: bool,
) -> None:
    try:
        begun = asking.begin(job, dry_run=dry_run, force=force)
    except Missing as missing:
        known = ", ".join(each.name for each in asking.view().jobs) or "none"
        raise Missing(f"no job {job!a}; there is: {known}", 404) from missing
    _show(session, asking.wait(begun, timeout) if wait else begun)


def _show(session: Session, run: Run) -> None:
    now = session.world.wall()
    counts = ", ".join(f"{count} {name}" for name, count in run.counts.items())
    lines = [f"{run.job} {run.id}: {run.state}{' (dry run)' * run.dry_run}"]
    lines.append(f"  begun {moment(run.started, now)}, ended {moment(run.ended, now)}")
    lines += [f"  {counts}"] if counts else []
    lines += [f"  {run.why}"] if run.why else []
    session.console.item(run.raw, "\n".join(shown(line) for line in lines))
    if run.state == "failed":
        raise Failure(f"{run.job} {run.id} failed: {run.why or 'it does not say why'}")


@command.command(
    "drain",
    short_help="Move all away from a node.",
    epilog=examples("ostore admin drain 3fa2"),
)
@click.argument("node")
@verb
def drain(session: Session, node: str) -> None:
    """Move all away from NODE, and nothing new there; the beginning of its id is enough.

    `ostore admin nodes` shows how many shards are left: none, and it can be taken away.
    """
    _order(session, node, "drain", "drains")


@command.command(
    "undrain",
    short_help="Take a node back.",
    epilog=examples("ostore admin undrain 3fa2"),
)
@click.argument("node")
@verb
def undrain(session: Session, node: str) -> None:
    """Take NODE back into service; the beginning of its id is enough."""
    _order(session, node, "undrain", "takes part again")


def _order(session: Session, word: str, order: str, done: str) -> None:
    asking = Administration(session)
    found = asking.view().find(word)
    if not found:
        raise Missing(f"no node {word!a}; `ostore admin nodes` lists them", 404)
    if len(found) > 1:
        ids = ", ".join(node.id for node in found)
        raise Misused(f"{word!a} could be any of: {ids}")
    answer = asking.node(found[0].id, order)
    facts = answer if isinstance(answer, dict) else {"id": found[0].id}
    session.console.done(facts, f"{found[0].id} {done}")


@command.command(
    "adopt",
    short_help="Take an older copy of the metadata for right.",
    epilog=examples("ostore admin adopt --force"),
)
@click.option("--force", is_flag=True, help="What was written since may be lost.")
@verb
def adopt(session: Session, *, force: bool) -> None:
    """Take an older copy of the metadata for right, after it was brought back.

    The nodes know that it is older: until then no job runs, and the service is not
    ready. Versions that were written after the copy was made are lost, and what they
    held is garbage. It is kept for a while yet, the time to bring a newer copy after
    all.
    """
    if not force:
        raise Misused(
            "versions that were written after the copy was made will be lost; if that "
            "is right, say --force"
        )
    answer = Administration(session).adopt()
    facts = answer if isinstance(answer, dict) else {}
    text = f"taken for right, with epoch {facts.get('epoch', '?')}"
    held = facts.get("nothing_removed_for")
    if isinstance(held, int | float):
        text += f"; nothing is removed for {span(held)}"
    session.console.done(facts, shown(text))


@command.command(
    "doctor",
    short_help="What is wrong, and what to mend.",
    epilog=examples(
        "ostore admin doctor",
        "ostore admin doctor --role standalone",
        "ostore admin doctor --role data --config /etc/ostore/data.toml",
    ),
)
@click.option(
    "--role",
    type=click.Choice(["standalone", "api", "data"]),
    help="Check the settings of such a service as well.",
)
@click.option("--config", metavar="FILE", type=PATH, help="Its file of settings.")
@verb
def doctor(session: Session, role: str | None, config: str | None) -> None:
    """Look at settings, broker, search server, nodes, clocks and disks; say what to mend.

    Changes nothing. With --role, the settings are those that a service on this machine
    would take, from --config and the environment. Status 1 when there is a problem.
    """
    if config is not None and role is None:
        raise Misused("--config needs --role: standalone, api or data")
    problems = 0
    for finding in Doctor(session, role, config).findings():
        problems += finding.state == PROBLEM
        facts = {
            "check": finding.what,
            "state": finding.state,
            "detail": finding.detail,
            "mend": finding.mend,
        }
        mark = finding.state.upper() if finding.state == PROBLEM else finding.state
        colour = session.console.green if finding.state == OK else session.console.red
        text = f"{colour(f'{mark:<8}')} {shown(finding.what)}: {shown(finding.detail)}"
        if finding.mend:
            text += f"\n         -> {shown(finding.mend)}"
        session.console.item(facts, text)
    if problems:
        raise Failure(f"{problems} problem{'s' * (problems > 1)}")
