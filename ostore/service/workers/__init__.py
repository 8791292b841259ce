"""One api service in several processes that share its port."""
