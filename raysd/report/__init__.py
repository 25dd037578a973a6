"""Reports: tables, figures, sample grids and one HTML page, made from result rows alone."""
