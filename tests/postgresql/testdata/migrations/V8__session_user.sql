--? setup: SET ROLE shop_owner; CREATE TABLE ledger.tags (tag text, actor text); CREATE FUNCTION ledger.stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.actor := current_setting('app.actor', true); RETURN NEW; END $$; CREATE TRIGGER stamp BEFORE INSERT ON ledger.tags FOR EACH ROW EXECUTE FUNCTION ledger.stamp(); RESET ROLE
--? warns: the caller can set app.actor, which the trigger stamp of ledger.tags
--? verify: SELECT count(*) = 1 FROM ledger.tags
CREATE TABLE IF NOT EXISTS ledger.tags (tag text, actor text);
INSERT INTO ledger.tags (tag) VALUES ('a');
