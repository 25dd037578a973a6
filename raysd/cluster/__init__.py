"""The cluster: Ray's session, the room on its nodes, and the checks before a job."""
