"""Metadata stores behind `IMetadataStore`."""
