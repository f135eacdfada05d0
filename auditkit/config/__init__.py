"""What a user writes to start a run, loaded with errors that know their place in the file."""

from auditkit.config.documents import (
    AuditDocument,
    BufferDocument,
    ComparisonsDocument,
    RandomModelDocument,
    SubjectDocument,
    TrainDocument,
)
from auditkit.config.loading import Located, load_audit, load_saes, load_train
from auditkit.config.sweep_document import GridDocument, SweepDocument
from auditkit.config.trainer_document import TrainerDocument

__all__ = [
    "AuditDocument",
    "BufferDocument",
    "ComparisonsDocument",
    "GridDocument",
    "Located",
    "RandomModelDocument",
    "SubjectDocument",
    "SweepDocument",
    "TrainDocument",
    "TrainerDocument",
    "load_audit",
    "load_saes",
    "load_train",
]
