"""What a person looks at: figures, and self-contained HTML pages."""
