"""The effective PSF: its model, how it is built from stars and read from DAOPhot, fits at fixed positions."""
