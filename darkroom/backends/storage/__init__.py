"""Data on S3: listing, transfer, published data sets, weights, ingestion."""
