"""Who is known: durable, searchable, changed while it is read."""
