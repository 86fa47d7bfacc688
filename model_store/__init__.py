"""What may be deployed: archives, versions and admission through the gate."""
