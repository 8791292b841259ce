"""A plain file server: what twisted.web does by itself, for comparison."""

import sys
from typing import Any

from twisted.internet import reactor as installed
from twisted.web.server import Site
from twisted.web.static import File

if __name__ == "__main__":
    reactor: Any = installed
    site: Any = Site(File(sys.argv[1]))  # type: ignore[no-untyped-call] # Twisted has none
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    print(f"plain-files ready on http://127.0.0.1:{port.getHost().port}", flush=True)
    reactor.run()
