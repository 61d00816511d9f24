"""Settings: frozen pydantic models. Imports nothing of ours."""
