"""What a user writes to start a run, loaded with errors that know their place in the file."""

from auditkit.config.documents import (
    AuditDocument,
    ComparisonsDocument,
    RandomModelDocument,
    SubjectDocument,
    TrainDocument,
)
from auditkit.config.loading import Located, load_audit, load_train

__all__ = [
    "AuditDocument",
    "ComparisonsDocument",
    "Located",
    "RandomModelDocument",
    "SubjectDocument",
    "TrainDocument",
    "load_audit",
    "load_train",
]
