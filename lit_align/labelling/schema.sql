-- Tasks, people and votes of a campaign. Votes are only ever added: a replacement has the next revision.
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS groups (id INTEGER PRIMARY KEY, digest TEXT UNIQUE, prompt TEXT, responses TEXT, source TEXT, extra TEXT,
    rendering TEXT DEFAULT '{}');
CREATE TABLE IF NOT EXISTS tasks (id INTEGER PRIMARY KEY, grp INTEGER REFERENCES groups, kind TEXT, members TEXT,
    gold TEXT, place REAL, taken INTEGER DEFAULT 0, UNIQUE (grp, kind, members));
CREATE INDEX IF NOT EXISTS tasks_by_place ON tasks (place, id);
CREATE INDEX IF NOT EXISTS tasks_by_taken ON tasks (taken) WHERE gold IS NULL;
CREATE INDEX IF NOT EXISTS gold_tasks ON tasks (id) WHERE gold IS NOT NULL;

CREATE TABLE IF NOT EXISTS people (id INTEGER PRIMARY KEY, name TEXT, admin INTEGER, token TEXT UNIQUE,
    introduced TEXT DEFAULT '', UNIQUE (name, admin));
CREATE TABLE IF NOT EXISTS sessions (secret TEXT PRIMARY KEY, person INTEGER REFERENCES people, opened REAL DEFAULT 0) WITHOUT ROWID;
-- a new link ends the sessions of the old one
CREATE TRIGGER IF NOT EXISTS renewed AFTER UPDATE OF token ON people
    BEGIN DELETE FROM sessions WHERE person = new.id; END;

CREATE TABLE IF NOT EXISTS shown (task INTEGER REFERENCES tasks, person INTEGER REFERENCES people, number INTEGER, state TEXT, at REAL,
    PRIMARY KEY (task, person), UNIQUE (person, number)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shown_by_person ON shown (person, state);
CREATE TABLE IF NOT EXISTS votes (id INTEGER PRIMARY KEY, person INTEGER REFERENCES people, task INTEGER REFERENCES tasks,
    revision INTEGER, verdict TEXT, answer TEXT, shown TEXT, note TEXT, seconds REAL, at REAL,
    UNIQUE (person, task, revision));
CREATE INDEX IF NOT EXISTS votes_by_person ON votes (person, id);
CREATE VIEW IF NOT EXISTS latest AS SELECT * FROM votes WHERE NOT EXISTS
    (SELECT 1 FROM votes later WHERE later.person = votes.person AND later.task = votes.task AND later.revision > votes.revision);

CREATE TRIGGER IF NOT EXISTS counted AFTER INSERT ON votes BEGIN
    UPDATE shown SET state = CASE new.verdict WHEN 'vote' THEN 'voted' WHEN 'skip' THEN 'skipped' ELSE 'open' END,
        at = CASE new.verdict WHEN 'undo' THEN new.at ELSE at END WHERE task = new.task AND person = new.person;
    UPDATE tasks SET taken = (SELECT count(*) FROM shown WHERE task = new.task AND state = 'voted') WHERE id = new.task;
END;
CREATE TRIGGER IF NOT EXISTS kept BEFORE UPDATE ON votes BEGIN SELECT RAISE(ABORT, 'a vote is never written over'); END;
CREATE TRIGGER IF NOT EXISTS stays BEFORE DELETE ON votes BEGIN SELECT RAISE(ABORT, 'a vote is never deleted'); END;
