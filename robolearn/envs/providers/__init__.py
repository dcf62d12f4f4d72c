"""All that is named after a third party: experts, quirks, cameras, packages."""
