"""Pages: what runs and studies found, as figures and one HTML file. Knows their folders; not how a run goes."""
