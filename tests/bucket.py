"""A remote file system for tests: folders of this machine behind URLs ``bucket://``."""

from __future__ import annotations

import fsspec
from fsspec.implementations.local import LocalFileSystem


class Bucket(LocalFileSystem):
    """As local files, but for the name; what is read from it is fetched first."""

    protocol = "bucket"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("bucket://"))


fsspec.register_implementation("bucket", Bucket, clobber=True)


def bucket_url(path) -> str:
    """The URL of a file or folder."""
    return f"bucket://{path}"
