"""Binary keys for MariaDB and MySQL.

By default these databases ignore case, accents and trailing spaces in keys, so `1.0-RC1`
would replace `1.0-rc1`.
"""

from typing import Any

import sqlalchemy as sa
from dlt.destinations.impl.sqlalchemy.dialect import (
    DIALECT_CAPS_REGISTRY,
    DialectCapabilities,
    register_dialect_capabilities,
)

from analytics_pipeline.tables.schema import BINARY


class BinaryText(sa.types.TypeDecorator[str]):
    """Text that is compared byte by byte."""

    impl = sa.String
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> Any:
        """Return the type with the server's binary collation."""
        collation = "utf8mb4_nopad_bin" if dialect.is_mariadb else "utf8mb4_0900_bin"
        made: Any = self.impl_instance
        return dialect.type_descriptor(sa.String(made.length, collation=collation))


class _BinaryKeys(DialectCapabilities):
    """Creates tables whose key columns have a binary collation."""

    def adapt_table(self, table: sa.Table, table_schema: Any) -> sa.Table:
        for name, column in table_schema["columns"].items():
            if column.get(BINARY) and name in table.columns:
                table.columns[name].type = BinaryText(column["precision"])
        return super().adapt_table(table, table_schema)


def register_binary_keys() -> None:
    """Let dlt create such tables, in addition to its own adaptations."""
    for name in ("mysql", "mariadb"):
        registered = DIALECT_CAPS_REGISTRY[name]
        if not issubclass(registered, _BinaryKeys):
            both: Any = type("BinaryKeys", (_BinaryKeys, registered), {})
            register_dialect_capabilities(name, both)
