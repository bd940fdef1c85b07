"""Limits: how large a picture may be before memory or time is spent on it, each with its reason.

A picture of a few kilobytes can claim any size, so what its header claims is held against these first.
"""

from __future__ import annotations

MAX_IMAGE_PX = 64 * 1024 * 1024
"""Of what the daemon serves, from cameras, clips and folders alike: twice 8K UHD. One image of it is 192 MiB, and a
camera has several at a time: one that is being decoded, one that waits, and those of the batch."""

MAX_PICTURE_PX = 1 << 28
"""Of a picture file at the desk, which is read alone. 268 million: the largest phone picture has 200. Decoded it takes
768 MiB, which a board of 4 GB can just give; the network sees it shrunk to its input in any case, and what is small on
a larger one is lost."""

MAX_FILE_BYTES = 1 << 30
"""Of a picture file: more than ``MAX_PICTURE_PX`` take uncompressed."""

MAX_SENT_BYTES = 64 * 1024 * 1024
"""Of one encoded picture that a camera sends: a JPEG of ``MAX_IMAGE_PX`` pixels at the best quality has less."""

MAX_SCANS = 64
"""Of a JPEG. A progressive one has about ten; thousands of them keep a decoder busy for minutes."""

MAX_TAGS = 4096
"""Of a TIFF directory that are looked at; real ones have some dozens."""

MAX_STRAY_BYTES = 1 << 16
"""Between two segments of a JPEG's header, where there should be none: so far a lost marker is looked for."""
