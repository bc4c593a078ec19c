"""pgvector for tests that need it: the embedded server has it, other servers may not."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest


def has_pgvector(connection: psycopg.Connection[Any]) -> bool:
    """Check whether the server has pgvector 0.8 or later."""
    row = connection.execute(
        """select string_to_array(default_version, '.')::integer[] >= '{0,8}'
             from pg_available_extensions where name = 'vector'"""
    ).fetchone()
    return row is not None and bool(row[0])


def create_pgvector(connection: psycopg.Connection[Any]) -> None:
    """Create the extension in a database, or skip the test."""
    if not has_pgvector(connection):
        pytest.skip("no pgvector 0.8")
    connection.execute("create extension if not exists vector schema public")
