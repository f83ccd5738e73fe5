from .base import ForeignFile as ForeignFile, Format as Format
from .importing import Imported as Imported, import_file as import_file
