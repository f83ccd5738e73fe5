from .as_data import BankImages as BankImages
from .bank import Bank as Bank
from .foreign import numbered_images as numbered_images
from .manifest import Manifest as Manifest, format_seeds as format_seeds, read_manifest as read_manifest
from .writer import BankWriter as BankWriter
