"""What a stranger adds: a modality, two dataset layouts and a task, each a module and an entry."""
