"""Model families: one file each; a file dropped in here is found without another edit."""
