from .hints import (
    UNKNOWN as UNKNOWN,
    classes_in as classes_in,
    fits as fits,
    hints_of as hints_of,
    parts_of as parts_of,
    required_of as required_of,
)
from .record import (
    complete_record as complete_record,
    is_record as is_record,
    rebuild as rebuild,
    record_of as record_of,
)
from .settings import (
    as_config as as_config,
    differences as differences,
    flat as flat,
    merged as merged,
    nested as nested,
)
