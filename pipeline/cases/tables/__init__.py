"""Tables as people keep them: CSV in its dialects, tab-separated text, Excel workbooks, Parquet."""
