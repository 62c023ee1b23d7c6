"""Many small image files as a few tar archives, which S3 and training jobs handle far faster."""
