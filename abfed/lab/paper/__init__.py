"""The page that a report stands on, and what makes HTML, Markdown and PDF of it."""
