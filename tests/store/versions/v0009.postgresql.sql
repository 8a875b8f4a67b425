SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.answers (
    comparison bigint NOT NULL,
    place bigint NOT NULL,
    entry bigint NOT NULL,
    sample bigint NOT NULL,
    prompt bigint,
    model text NOT NULL,
    label text NOT NULL,
    provider text,
    upstream_model text,
    finish_reason text,
    kind text,
    code text,
    upstream_status bigint,
    input_tokens bigint,
    output_tokens bigint,
    cached_tokens bigint,
    cost_usd double precision,
    cost_source text,
    queued_ms bigint NOT NULL,
    ttft_ms bigint,
    call_ms bigint,
    total_ms bigint NOT NULL,
    attempts bigint NOT NULL,
    said text,
    said_digest bytea,
    is_member boolean,
    fusion text
);
CREATE TABLE public.attempts (
    job bigint NOT NULL,
    item bigint NOT NULL,
    entry bigint NOT NULL,
    repeat bigint NOT NULL,
    attempt bigint NOT NULL,
    epoch bigint NOT NULL,
    started double precision NOT NULL
);
CREATE TABLE public.batches (
    id text NOT NULL,
    created double precision NOT NULL,
    account_id text NOT NULL,
    request text NOT NULL,
    validated double precision,
    errors text,
    cancelling double precision,
    settled double precision,
    output_file text,
    error_file text
);
CREATE TABLE public.call_times (
    period bigint NOT NULL,
    account_id text NOT NULL,
    provider text NOT NULL,
    figure text NOT NULL,
    step bigint NOT NULL,
    calls bigint NOT NULL
);
CREATE TABLE public.comparison_metadata (
    comparison bigint NOT NULL,
    name text NOT NULL,
    value text NOT NULL
);
CREATE TABLE public.comparisons (
    number bigint NOT NULL,
    id text NOT NULL,
    created double precision NOT NULL,
    account_id text NOT NULL,
    request_id text NOT NULL,
    path text NOT NULL,
    stream boolean NOT NULL,
    status bigint NOT NULL,
    answered bigint NOT NULL,
    failed bigint NOT NULL,
    input_tokens bigint,
    output_tokens bigint,
    cached_tokens bigint,
    unknown_usage bigint NOT NULL,
    cost_usd double precision,
    cost_unknown bigint NOT NULL,
    cache_write_tokens bigint,
    reasoning_tokens bigint,
    total_ms bigint NOT NULL,
    overhead_ms bigint NOT NULL,
    digest bytea NOT NULL,
    request text,
    request_digest bytea
);
CREATE TABLE public.failures (
    job bigint NOT NULL,
    item bigint NOT NULL,
    entry bigint NOT NULL,
    repeat bigint NOT NULL,
    attempt bigint NOT NULL,
    ended double precision NOT NULL,
    kind text NOT NULL,
    failure text NOT NULL
);
CREATE TABLE public.file_parts (
    file text NOT NULL,
    part bigint NOT NULL,
    bytes bytea NOT NULL
);
CREATE TABLE public.files (
    id text NOT NULL,
    created double precision NOT NULL,
    account_id text NOT NULL,
    filename text NOT NULL,
    purpose text NOT NULL,
    bytes bigint NOT NULL,
    job text,
    expires double precision
);
CREATE TABLE public.history_texts (
    digest bytea NOT NULL,
    text text NOT NULL,
    day bigint NOT NULL
);
CREATE TABLE public.idempotent_answers (
    scope bytea NOT NULL,
    created double precision NOT NULL,
    fingerprint bytea NOT NULL,
    status bigint NOT NULL,
    headers text NOT NULL,
    body bytea NOT NULL
);
CREATE TABLE public.items (
    job bigint NOT NULL,
    item bigint NOT NULL,
    line bigint NOT NULL,
    custom_id text,
    body text,
    digest bytea
);
CREATE TABLE public.job_counts (
    job bigint NOT NULL,
    model text NOT NULL,
    result text NOT NULL,
    calls bigint NOT NULL,
    attempts bigint NOT NULL,
    input_tokens bigint,
    output_tokens bigint,
    cached_tokens bigint,
    unknown_usage bigint NOT NULL,
    cost_usd double precision,
    cost_unknown bigint NOT NULL,
    total_ms bigint NOT NULL
);
CREATE TABLE public.jobs (
    number bigint NOT NULL,
    id text NOT NULL,
    created double precision NOT NULL,
    account_id text NOT NULL,
    spec text NOT NULL,
    fingerprint text NOT NULL,
    state text NOT NULL,
    reason text,
    items bigint NOT NULL,
    units bigint NOT NULL,
    started double precision,
    ended double precision,
    rate double precision,
    owner text,
    lease_until double precision,
    epoch bigint NOT NULL,
    forked_from text
);
CREATE SEQUENCE public.jobs_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.jobs_number_seq OWNED BY public.jobs.number;
CREATE TABLE public.scorers (
    job bigint NOT NULL,
    scorer bigint NOT NULL,
    label text NOT NULL,
    version text NOT NULL,
    declaration text NOT NULL,
    is_bounded boolean NOT NULL,
    is_higher_better boolean NOT NULL,
    declared double precision NOT NULL
);
CREATE TABLE public.scores (
    job bigint NOT NULL,
    item bigint NOT NULL,
    entry bigint NOT NULL,
    repeat bigint NOT NULL,
    scorer bigint NOT NULL,
    value double precision,
    explanation text
);
CREATE TABLE public.texts (
    digest bytea NOT NULL,
    text text NOT NULL
);
CREATE TABLE public.units (
    job bigint NOT NULL,
    item bigint NOT NULL,
    entry bigint NOT NULL,
    repeat bigint NOT NULL,
    state text NOT NULL,
    attempt bigint NOT NULL,
    ended double precision NOT NULL,
    model text NOT NULL,
    result text NOT NULL,
    input_tokens bigint,
    output_tokens bigint,
    cached_tokens bigint,
    cost_usd double precision,
    total_ms bigint NOT NULL,
    answer bytea,
    record text,
    digest bytea,
    cache_key bytea,
    cached_from text
);
CREATE TABLE public.usage (
    minute bigint NOT NULL,
    account_id text NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    upstream_model text NOT NULL,
    result text NOT NULL,
    calls bigint NOT NULL,
    input_tokens bigint,
    output_tokens bigint,
    cached_tokens bigint,
    unknown_usage bigint NOT NULL,
    cost_usd double precision,
    cost_unknown bigint NOT NULL
);
CREATE TABLE public.votes (
    number bigint NOT NULL,
    id text NOT NULL,
    drawn double precision NOT NULL,
    account_id text NOT NULL,
    rater text NOT NULL,
    kind text NOT NULL,
    job_id text,
    comparison_id text,
    item bigint NOT NULL,
    entry_a bigint NOT NULL,
    repeat_a bigint NOT NULL,
    model_a text NOT NULL,
    entry_b bigint,
    repeat_b bigint,
    model_b text,
    voted double precision,
    choice text,
    score double precision
);
CREATE SEQUENCE public.votes_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.votes_number_seq OWNED BY public.votes.number;
ALTER TABLE ONLY public.jobs ALTER COLUMN number SET DEFAULT nextval('public.jobs_number_seq'::regclass);
ALTER TABLE ONLY public.votes ALTER COLUMN number SET DEFAULT nextval('public.votes_number_seq'::regclass);
INSERT INTO public.alembic_version VALUES
	('0009');
INSERT INTO public.answers VALUES
	(1838912909302595871, 0, 0, 0, NULL, 'local/ngram-3', 'local/ngram-3', 'local', 'ngram-3', 'length', NULL, NULL, NULL, 3, 8, 0, 0, 'providers.json', 0, NULL, 48, 48, 1, '{"text":" executed in the group. This can be"}', NULL, false, NULL),
	(1838912909302595871, 1, 1, 0, NULL, 'local/ngram-5', 'local/ngram-5', 'local', 'ngram-5', 'length', NULL, NULL, NULL, 3, 8, 0, 0, 'providers.json', 0, NULL, 4, 25, 1, '{"text":" guarantees that if the __enter__() method returns"}', NULL, false, NULL),
	(1838912909399264544, 0, 0, 0, NULL, 'local/ngram-2', 'local/ngram-2', 'local', 'ngram-2', 'length', NULL, NULL, NULL, 3, 8, 0, 0, 'providers.json', 0, NULL, 1, 1, 1, '{"text":" requested by s * must be defined."}', NULL, false, NULL),
	(1838912909399264544, 1, 1, 0, NULL, 'nobody', 'nobody', NULL, NULL, 'error', 'not_found', 'model_not_found', NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, 1, 0, '{"text":"","message":"unknown model `nobody`; `GET /v1/models` lists what is known"}', NULL, false, NULL),
	(1838912909455975713, 0, 0, 0, NULL, 'local/ngram-5', 'fusion(local/ngram-2, local/ngram-3 by local/ngram-5)', 'local', 'ngram-5', 'length', NULL, NULL, NULL, 181, 8, 0, 0, 'providers.json', 0, NULL, 41, 44, 1, '{"text":" requested by setting f_trace_opcodes to True. Note"}', NULL, false, '{"of":[1,2],"members":[{"entry":1,"index":1,"label":"local/ngram-2","left_out":null},{"entry":2,"index":2,"label":"local/ngram-3","left_out":null}],"prompt":"1","cost_usd":0.0,"cost_unknown":0}'),
	(1838912909455975713, 1, 1, 0, NULL, 'local/ngram-2', 'local/ngram-2', 'local', 'ngram-2', 'length', NULL, NULL, NULL, 2, 8, 0, 0, 'providers.json', 0, NULL, 2, 2, 1, '{"text":" If no arguments are more easily recognized already"}', NULL, true, NULL),
	(1838912909455975713, 2, 2, 0, NULL, 'local/ngram-3', 'local/ngram-3', 'local', 'ngram-3', 'length', NULL, NULL, NULL, 2, 8, 0, 0, 'providers.json', 0, NULL, 2, 3, 1, '{"text":" has a lookup chain starting with a.__dict__[''"}', NULL, true, NULL);
INSERT INTO public.attempts VALUES
	(1, 0, 0, 0, 1, 1643511507, 1795813389.2504),
	(1, 0, 1, 0, 1, 1643511507, 1795813389.2504625),
	(1, 1, 0, 0, 1, 1643511507, 1795813389.4862442),
	(1, 1, 1, 0, 1, 1643511507, 1795813389.4863045),
	(2, 0, 0, 0, 1, 521513939, 1795813394.906304);
INSERT INTO public.batches VALUES
	('batch_3455faeedd2f48e58388ac991a6c08d2', 1795813394.651, '', '{"input_file_id":"file-ae6e6f40bc12463b850953a6a80a08fc","endpoint":"/v1/chat/completions","completion_window":"24h"}', 1795813394.783049, NULL, NULL, 1795813395.7897632, 'file-3455faeedd2f48e58388ac991a6c08d2-output', NULL);
INSERT INTO public.call_times VALUES
	(1795813200, '', 'local', 'answer', 2, 1),
	(1795813200, '', 'local', 'answer', 5, 1),
	(1795813200, '', 'local', 'answer', 6, 1),
	(1795813200, '', 'local', 'answer', 10, 1),
	(1795813200, '', 'local', 'answer', 27, 1),
	(1795813200, '', 'local', 'answer', 28, 1),
	(1795813200, '', 'local', 'answer', 1, 1),
	(1795813200, '', 'local', 'answer', 26, 1),
	(1795813200, '', 'local', 'answer', 38, 1),
	(1795813200, '', 'local', 'answer', 0, 2),
	(1795813200, '', 'local', 'wait', 0, 11);
INSERT INTO public.comparison_metadata VALUES
	(1838912909302595871, 'team', 'blue');
INSERT INTO public.comparisons VALUES
	(1838912909302595871, 'a96748ee-402f-4680-8517-4e1748e6a430', 1795813387.9908168, '', '8d20057e-10a7-470e-bf4b-5941f7fc0683', '/v1/completion', false, 200, 2, 0, 6, 16, 0, 0, 0, 0, 0, 0, 50, 2, '\xfd888d345428d00ffe3955802104a8210c3de7ca0b644a646534571032cdb101', '{"model": ["local/ngram-3", "local/ngram-5"], "prompt": "The with statement", "max_tokens": 8, "seed": 1, "metadata": {"team": "blue"}}', NULL),
	(1838912909399264544, 'ef792286-1a78-4512-874d-4f83905e95c4', 1795813388.085219, '', '8eba8c77-6863-45ff-bc71-19a0e3419f9c', '/v1/completion', false, 200, 1, 1, 3, 8, 0, 0, 0, 0, 0, 0, 44, 43, '\x1caafad853d5bb099bf39628392c1701e46f1b25c53f930bbe4f6a2191f3a5c9', '{"model": ["local/ngram-2", "nobody"], "prompt": "A class \u00e9", "max_tokens": 8, "seed": 1}', NULL),
	(1838912909455975713, 'ac3ae4ec-8886-4ece-acf4-0c291973e02c', 1795813388.1406012, '', 'bf8ac773-96f3-4f9c-b04a-3c128201f602', '/v1/completion', false, 200, 3, 0, 185, 24, 0, 0, 0, 0, 0, 0, 45, 1, '\xbd68e7f14e50dcdbd2bedfca7656d252fc3e5ba4ca83f4fd437ac9767e7bf75f', '{"model": ["fusion(local/ngram-2, local/ngram-3 by local/ngram-5)"], "prompt": "A class", "max_tokens": 8, "seed": 1}', NULL);
INSERT INTO public.file_parts VALUES
	('file-ae6e6f40bc12463b850953a6a80a08fc', 0, '\x7b22637573746f6d5f6964223a20226f6e65222c20226d6574686f64223a2022504f5354222c202275726c223a20222f76312f636861742f636f6d706c6574696f6e73222c2022626f6479223a207b226d6f64656c223a20226c6f63616c2f6e6772616d2d33222c20226d65737361676573223a205b7b22726f6c65223a202275736572222c2022636f6e74656e74223a20226869227d5d2c20226d61785f746f6b656e73223a20342c202273656564223a20317d7d');
INSERT INTO public.files VALUES
	('file-ae6e6f40bc12463b850953a6a80a08fc', 1795813394.5409641, '', 'lines.jsonl', 'batch', 182, NULL, NULL),
	('file-3455faeedd2f48e58388ac991a6c08d2-output', 1795813395.7757733, '', 'batch_3455faeedd2f48e58388ac991a6c08d2_output.jsonl', 'batch_output', 1379, 'batch_3455faeedd2f48e58388ac991a6c08d2', NULL);
INSERT INTO public.idempotent_answers VALUES
	('\xca8323fa2312e69a73efbdeb7d83df386bf3584a29912e8a066cf027f974039c', 1795813388.088029, '\x1caafad853d5bb099bf39628392c1701e46f1b25c53f930bbe4f6a2191f3a5c9', 200, '{"Content-Type":"application/json","x-comparison-id":"ef792286-1a78-4512-874d-4f83905e95c4"}', '\x7b226964223a2265663739323238362d316137382d343531322d383734642d346638333930356539356334222c226f626a656374223a22746578745f636f6d706c6574696f6e222c2263726561746564223a22323032362d31312d32375432313a30333a30382e3038355a222c2263686f69636573223a5b7b22696e646578223a302c22656e747279223a302c2273616d706c65223a302c226d6f64656c223a226c6f63616c2f6e6772616d2d32222c226c6162656c223a226c6f63616c2f6e6772616d2d32222c2274657874223a22207265717565737465642062792073202a206d75737420626520646566696e65642e222c2263726561746564223a313739353831333338382c226c6f6770726f6273223a6e756c6c2c2266696e6973685f726561736f6e223a226c656e677468222c226e61746976655f66696e6973685f726561736f6e223a6e756c6c2c227573616765223a7b2270726f6d70745f746f6b656e73223a332c22636f6d706c6574696f6e5f746f6b656e73223a382c22746f74616c5f746f6b656e73223a31312c226361636865645f746f6b656e73223a302c2270726564696374696f6e5f74696d655f6d73223a317d2c2270726f7669646572223a226c6f63616c222c22757073747265616d5f6d6f64656c223a226e6772616d2d32222c2274696d696e67223a7b227175657565645f6d73223a302c22747466745f6d73223a6e756c6c2c22746f74616c5f6d73223a312c22617474656d707473223a312c22746f6b656e735f7065725f7365636f6e64223a363230312e31387d2c22636f73745f757364223a302e302c22636f73745f736f75726365223a2270726f7669646572732e6a736f6e222c2269676e6f7265645f706172616d6574657273223a5b5d2c2261646a75737465645f706172616d6574657273223a7b7d2c226572726f72223a6e756c6c7d2c7b22696e646578223a312c22656e747279223a312c2273616d706c65223a302c226d6f64656c223a226e6f626f6479222c226c6162656c223a226e6f626f6479222c2274657874223a22222c2263726561746564223a313739353831333338382c226c6f6770726f6273223a6e756c6c2c2266696e6973685f726561736f6e223a226572726f72222c226e61746976655f66696e6973685f726561736f6e223a6e756c6c2c227573616765223a7b2270726f6d70745f746f6b656e73223a6e756c6c2c22636f6d706c6574696f6e5f746f6b656e73223a6e756c6c2c22746f74616c5f746f6b656e73223a6e756c6c2c226361636865645f746f6b656e73223a6e756c6c2c2270726564696374696f6e5f74696d655f6d73223a6e756c6c7d2c2270726f7669646572223a6e756c6c2c22757073747265616d5f6d6f64656c223a6e756c6c2c2274696d696e67223a7b227175657565645f6d73223a302c22747466745f6d73223a6e756c6c2c22746f74616c5f6d73223a312c22617474656d707473223a302c22746f6b656e735f7065725f7365636f6e64223a6e756c6c7d2c22636f73745f757364223a6e756c6c2c22636f73745f736f75726365223a6e756c6c2c2269676e6f7265645f706172616d6574657273223a5b5d2c2261646a75737465645f706172616d6574657273223a7b7d2c226572726f72223a7b226d657373616765223a22756e6b6e6f776e206d6f64656c20606e6f626f6479603b2060474554202f76312f6d6f64656c7360206c697374732077686174206973206b6e6f776e222c2274797065223a22696e76616c69645f726571756573745f6572726f72222c22706172616d223a226d6f64656c222c22636f6465223a226d6f64656c5f6e6f745f666f756e64222c226b696e64223a226e6f745f666f756e64227d7d5d2c227573616765223a7b2270726f6d70745f746f6b656e73223a332c22636f6d706c6574696f6e5f746f6b656e73223a382c22746f74616c5f746f6b656e73223a31312c226361636865645f746f6b656e73223a302c2270726564696374696f6e5f74696d655f6d73223a332c22756e6b6e6f776e223a307d2c22636f73745f757364223a302e302c22636f73745f756e6b6e6f776e223a302c2274696d696e67223a7b22746f74616c5f6d73223a332c226f766572686561645f6d73223a317d2c226d65746164617461223a7b7d7d');
INSERT INTO public.items VALUES
	(1, 0, 1, NULL, '{"prompt":"The return statement","reference":"may only occur"}', NULL),
	(1, 1, 2, 'b', '{"prompt":"The break statement","reference":"may only occur"}', NULL),
	(2, 0, 1, 'one', '{"model":"local/ngram-3","messages":[{"role":"user","content":"hi"}],"max_tokens":4,"seed":1}', NULL);
INSERT INTO public.job_counts VALUES
	(1, 'local/ngram-3', 'answered', 2, 2, 6, 16, 0, 0, 0, 0, 35),
	(1, 'local/ngram-5', 'answered', 2, 2, 6, 16, 0, 0, 0, 0, 178),
	(2, 'local/ngram-3', 'answered', 1, 1, 1, 4, 0, 0, 0, 0, 0);
INSERT INTO public.jobs VALUES
	(2, 'batch_3455faeedd2f48e58388ac991a6c08d2', 1795813394.6795015, '', '{"kind":"requests","endpoint":"/v1/chat/completions","deadline":1795899794.651,"input":{"name":"lines.jsonl","file":"file-ae6e6f40bc12463b850953a6a80a08fc"},"unattended":true,"window":"24h"}', '{"local/ngram-3":{"model":"local/ngram-3","provider":"local","adapter":"ngram","base_url":null,"upstream_model":"ngram-3","kind":"both","limit_group":null}}', 'done', NULL, 1, 1, 1795813394.8386185, 1795813394.9502866, NULL, NULL, 1795813409.865387, 521513939, NULL),
	(1, 'job_e8ad60c5bf9345469338fb177b016f9f', 1795813388.790101, '', '{"models":[{"model":"local/ngram-3"},{"model":"local/ngram-5"}],"parameters":{"max_tokens":8,"seed":1},"scorers":[{"type":"rouge_l"}],"name":"an old job","unattended":true}', '{"0: local/ngram-3":{"model":"local/ngram-3","provider":"local","adapter":"ngram","base_url":null,"upstream_model":"ngram-3","kind":"both","limit_group":null,"sent":{"max_tokens":8,"seed":1},"ignored":[]},"1: local/ngram-5":{"model":"local/ngram-5","provider":"local","adapter":"ngram","base_url":null,"upstream_model":"ngram-5","kind":"both","limit_group":null,"sent":{"max_tokens":8,"seed":1},"ignored":[]}}', 'done', NULL, 2, 4, 1795813389.1100512, 1795813394.40586, NULL, NULL, 1795813407.230914, 1643511507, NULL);
INSERT INTO public.scorers VALUES
	(1, 1, 'rouge_l', 'rouge_l/1/44136fa355b3', '{"type":"rouge_l"}', true, true, 1795813389.0576613);
INSERT INTO public.scores VALUES
	(1, 0, 0, 0, 1, 0, NULL),
	(1, 0, 1, 0, 1, 0, NULL),
	(1, 1, 0, 0, 1, 0, NULL),
	(1, 1, 1, 0, 1, 0, NULL);
INSERT INTO public.units VALUES
	(1, 0, 0, 0, 'done', 1, 1795813389.3114626, 'local/ngram-3', 'answered', 3, 8, 0, 0, 34, '\xf02183f15fa8de92a5d739cdf2f93cc2', '{"model":"local/ngram-3","label":"local/ngram-3","provider":"local","upstream_model":"ngram-3","completion":{"choices":[{"message":{"text":" with a numeric value of a try statement"},"finish_reason":"length"}],"usage":{"input_tokens":3,"output_tokens":8,"cached_input_tokens":0,"cache_write_tokens":0,"reasoning_tokens":0},"model":"ngram-3","system_fingerprint":"pydoc-3.11.7-faa1cf06"},"timing":{"queued_s":0.00005893100751563907,"call_s":0.03348380899115,"total_s":0.03365265700267628,"attempts":1},"cost":{"usd":0.0,"source":"providers.json"}}', NULL, NULL, NULL),
	(1, 0, 1, 0, 'done', 1, 1795813389.4555156, 'local/ngram-5', 'answered', 3, 8, 0, 0, 177, '\x696353b14a69f004fa24434590aeba71', '{"model":"local/ngram-5","label":"local/ngram-5","provider":"local","upstream_model":"ngram-5","completion":{"choices":[{"message":{"text":" with a finally clause, that finally clause"},"finish_reason":"length"}],"usage":{"input_tokens":3,"output_tokens":8,"cached_input_tokens":0,"cache_write_tokens":0,"reasoning_tokens":0},"model":"ngram-5","system_fingerprint":"pydoc-3.11.7-faa1cf06"},"timing":{"queued_s":0.00001742799940984696,"call_s":0.1769475170003716,"total_s":0.17706210199685302,"attempts":1},"cost":{"usd":0.0,"source":"providers.json"}}', NULL, NULL, NULL),
	(1, 1, 0, 0, 'done', 1, 1795813389.5673769, 'local/ngram-3', 'answered', 3, 8, 0, 0, 1, '\xf02183f15fa8de92a5d739cdf2f93cc2', '{"model":"local/ngram-3","label":"local/ngram-3","provider":"local","upstream_model":"ngram-3","completion":{"choices":[{"message":{"text":" with a numeric value of a try statement"},"finish_reason":"length"}],"usage":{"input_tokens":3,"output_tokens":8,"cached_input_tokens":0,"cache_write_tokens":0,"reasoning_tokens":0},"model":"ngram-3","system_fingerprint":"pydoc-3.11.7-faa1cf06"},"timing":{"queued_s":0.000030643001082353294,"call_s":0.0004816750006284565,"total_s":0.0005607950006378815,"attempts":1},"cost":{"usd":0.0,"source":"providers.json"}}', NULL, NULL, NULL),
	(1, 1, 1, 0, 'done', 1, 1795813389.5682526, 'local/ngram-5', 'answered', 3, 8, 0, 0, 1, '\x696353b14a69f004fa24434590aeba71', '{"model":"local/ngram-5","label":"local/ngram-5","provider":"local","upstream_model":"ngram-5","completion":{"choices":[{"message":{"text":" with a finally clause, that finally clause"},"finish_reason":"length"}],"usage":{"input_tokens":3,"output_tokens":8,"cached_input_tokens":0,"cache_write_tokens":0,"reasoning_tokens":0},"model":"ngram-5","system_fingerprint":"pydoc-3.11.7-faa1cf06"},"timing":{"queued_s":4.929999704472721e-6,"call_s":0.0010128139983862638,"total_s":0.001047973011736758,"attempts":1},"cost":{"usd":0.0,"source":"providers.json"}}', NULL, NULL, NULL),
	(2, 0, 0, 0, 'done', 1, 1795813394.929439, 'local/ngram-3', 'answered', 1, 4, 0, 0, 0, '\xd11b8d9bea1d6593383aada09dfb5d1d', '{"model":"local/ngram-3","label":"local/ngram-3","provider":"local","upstream_model":"ngram-3","completion":{"choices":[{"message":{"text":" requested by setting f_trace_lines"},"finish_reason":"length"}],"usage":{"input_tokens":1,"output_tokens":4,"cached_input_tokens":0,"cache_write_tokens":0,"reasoning_tokens":0},"model":"ngram-3","system_fingerprint":"pydoc-3.11.7-faa1cf06"},"timing":{"queued_s":0.000029578004614450037,"call_s":0.00038644099549856037,"total_s":0.0004756540001835674,"attempts":1},"cost":{"usd":0.0,"source":"providers.json"}}', NULL, NULL, NULL);
INSERT INTO public.usage VALUES
	(1795813380, '', '', '', '', 'not_found', 1, NULL, NULL, NULL, 0, NULL, 0),
	(1795813380, '', 'local/ngram-2', 'local', 'ngram-2', 'answered', 2, 5, 16, 0, 0, 0, 0),
	(1795813380, '', 'local/ngram-5', 'local', 'ngram-5', 'answered', 4, 190, 32, 0, 0, 0, 0),
	(1795813380, '', 'local/ngram-3', 'local', 'ngram-3', 'answered', 5, 12, 36, 0, 0, 0, 0);
INSERT INTO public.votes VALUES
	(1, 'ballot_96cd969c0bc2483ca26ace2500d5ca22', 1795813395.9620275, '', '', 'pair', 'job_e8ad60c5bf9345469338fb177b016f9f', NULL, 1, 1, 0, 'local/ngram-5', 0, 0, 'local/ngram-3', 1795813396.0600429, 'a', NULL);
SELECT pg_catalog.setval('public.jobs_number_seq', 2, true);
SELECT pg_catalog.setval('public.votes_number_seq', 1, true);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.answers
    ADD CONSTRAINT answers_key PRIMARY KEY (comparison, place);
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT attempts_key PRIMARY KEY (job, item, entry, repeat, attempt);
ALTER TABLE ONLY public.batches
    ADD CONSTRAINT batches_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.call_times
    ADD CONSTRAINT call_times_key PRIMARY KEY (period, account_id, provider, figure, step);
ALTER TABLE ONLY public.comparison_metadata
    ADD CONSTRAINT comparison_metadata_key PRIMARY KEY (comparison, name);
ALTER TABLE ONLY public.comparisons
    ADD CONSTRAINT comparisons_id_key UNIQUE (id);
ALTER TABLE ONLY public.comparisons
    ADD CONSTRAINT comparisons_pkey PRIMARY KEY (number);
ALTER TABLE ONLY public.failures
    ADD CONSTRAINT failures_key PRIMARY KEY (job, item, entry, repeat, attempt);
ALTER TABLE ONLY public.file_parts
    ADD CONSTRAINT file_parts_key PRIMARY KEY (file, part);
ALTER TABLE ONLY public.files
    ADD CONSTRAINT files_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.history_texts
    ADD CONSTRAINT history_texts_pkey PRIMARY KEY (digest);
ALTER TABLE ONLY public.idempotent_answers
    ADD CONSTRAINT idempotent_answers_pkey PRIMARY KEY (scope);
ALTER TABLE ONLY public.items
    ADD CONSTRAINT items_key PRIMARY KEY (job, item);
ALTER TABLE ONLY public.job_counts
    ADD CONSTRAINT job_counts_key PRIMARY KEY (job, model, result);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_id_key UNIQUE (id);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (number);
ALTER TABLE ONLY public.scorers
    ADD CONSTRAINT scorers_key PRIMARY KEY (job, scorer);
ALTER TABLE ONLY public.scorers
    ADD CONSTRAINT scorers_version UNIQUE (job, label, version);
ALTER TABLE ONLY public.scores
    ADD CONSTRAINT scores_key PRIMARY KEY (job, item, entry, repeat, scorer);
ALTER TABLE ONLY public.texts
    ADD CONSTRAINT texts_pkey PRIMARY KEY (digest);
ALTER TABLE ONLY public.units
    ADD CONSTRAINT units_key PRIMARY KEY (job, item, entry, repeat);
ALTER TABLE ONLY public.usage
    ADD CONSTRAINT usage_key PRIMARY KEY (minute, account_id, model, provider, upstream_model, result);
ALTER TABLE ONLY public.votes
    ADD CONSTRAINT votes_id_key UNIQUE (id);
ALTER TABLE ONLY public.votes
    ADD CONSTRAINT votes_pkey PRIMARY KEY (number);
CREATE INDEX answers_label ON public.answers USING btree (label, comparison);
CREATE INDEX answers_model ON public.answers USING btree (model, comparison);
CREATE INDEX batches_unsettled ON public.batches USING btree (created) WHERE (settled IS NULL);
CREATE INDEX comparison_metadata_value ON public.comparison_metadata USING btree (name, value, comparison);
CREATE INDEX comparisons_account ON public.comparisons USING btree (account_id, number);
CREATE INDEX comparisons_failed ON public.comparisons USING btree (number) WHERE (failed > 0);
CREATE INDEX files_created ON public.files USING btree (created, id);
CREATE INDEX history_texts_day ON public.history_texts USING btree (day);
CREATE INDEX idempotent_answers_created ON public.idempotent_answers USING btree (created);
CREATE INDEX units_cache ON public.units USING btree (cache_key) WHERE (cache_key IS NOT NULL);
CREATE INDEX votes_account ON public.votes USING btree (account_id, number);
CREATE INDEX votes_comparison ON public.votes USING btree (comparison_id);
CREATE INDEX votes_job ON public.votes USING btree (job_id, item);
