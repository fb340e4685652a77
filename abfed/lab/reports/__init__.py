"""Reports: a notebook executed in a kernel that can't reach a silo; one of them, or a batch."""
