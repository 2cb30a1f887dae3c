"""What is promised in SECURITY.md, looked for from outside on a whole stack."""
