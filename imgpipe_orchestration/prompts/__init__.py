"""What the models are asked: one file a task, which PROMPTS_DIR can replace."""
