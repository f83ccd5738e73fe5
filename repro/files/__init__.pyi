from .content import BROKEN_ARRAY as BROKEN_ARRAY, sha256_of_file as sha256_of_file
from .plain import (
    parse_json as parse_json,
    parse_yaml as parse_yaml,
    read_json as read_json,
    read_settings as read_settings,
    read_yaml as read_yaml,
)
from .text import csv_text as csv_text, printable as printable, say as say
from .writing import (
    cache_folder as cache_folder,
    locked as locked,
    make_folder as make_folder,
    sweep_parts as sweep_parts,
    write_text as write_text,
    write_whole as write_whole,
)
