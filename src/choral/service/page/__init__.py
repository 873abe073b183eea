"""The page that a person looks at, and what feeds it."""
