"""Import a patient: read, check and repair surfaces, mesh the organ, grid distances, plan, and write a case folder."""

from twinguide.importing.importer import ImportReport, ImportRow, import_case

__all__ = ["ImportReport", "ImportRow", "import_case"]
