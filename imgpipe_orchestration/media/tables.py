"""The media pipeline's tables, named as the documents name them.

`pending_images` may live in a MySQL or MariaDB of its own, so its statements are dialect-neutral.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, MetaData, String, Table, func

TIME_IS_READABLE = "created_at between '0001-01-02' and '9999-12-30'"
"""SQL that is false for what somebody else's insert may hold and Python cannot: 'infinity', years past 9999 or before
Christ, MySQL's zero date."""

pending_images = Table(
    "pending_images",
    MetaData(),
    Column("id", BigInteger, primary_key=True),
    Column("user_id", BigInteger, nullable=False),
    Column("image_path", String(255), nullable=False),
    Column("original_name", String(255)),
    Column("mime_type", String(100)),
    Column("permanent_url", String(500)),
    Column("thumbnail_url", String(500)),
    Column("status", String(16), nullable=False, server_default="pending"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
