"""What `ostore admin` asks: the state of a service, its jobs, and what is wrong."""
