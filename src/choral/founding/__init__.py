"""Making a federation: task, keys, certificates, one folder a participant. What `choral init` calls."""

from choral.founding.federation import found

__all__ = ["found"]
