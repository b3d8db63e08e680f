"""A whole running dicomq on free ports."""
