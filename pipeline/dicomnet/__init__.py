"""DICOM results: structured reports and pictures of scored series, for a PACS."""
