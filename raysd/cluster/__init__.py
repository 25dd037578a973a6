"""The cluster: Ray's session, what fits on its nodes, what is checked of them before a job."""
