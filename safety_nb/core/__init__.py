"""What every room uses: parameters, the run folder, files, endpoints, errors. Knows nothing of models or pages."""
