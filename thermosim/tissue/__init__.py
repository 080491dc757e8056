"""What tissue is made of: property tables by label and their temperature laws."""
