"""What a store does by itself: a job for each kind of work, one owner for all."""
