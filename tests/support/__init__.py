"""Set-up that several tests share: servers, databases, browsers, small models and runs."""
