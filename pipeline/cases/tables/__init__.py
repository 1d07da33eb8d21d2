"""Readers of tables: CSV in its dialects, tab-separated text, Excel workbooks, Parquet."""
