"""Demonstrations on disk: schema, crash-safe writer, reader, sampler, validation, repair, editing and conversion."""
