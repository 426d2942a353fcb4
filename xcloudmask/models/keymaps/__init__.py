"""Names of tensors in other people's files, and what they are called here."""
