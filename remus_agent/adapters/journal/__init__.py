"""What must outlive a restart: the commits of each domain, and the protections that exist."""
