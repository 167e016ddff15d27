--? verify: SELECT true
CREATE EXTENSION IF NOT EXISTS plpgsql;
