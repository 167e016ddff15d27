--? refused: name the schema in the role's search_path
CREATE TABLE IF NOT EXISTS invoices (id bigserial PRIMARY KEY, total numeric NOT NULL);
