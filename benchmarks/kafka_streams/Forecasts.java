import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.Reader;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.LocalDate;
import java.util.Arrays;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.LongAdder;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorSpecies;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueBytesStoreSupplier;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/**
 * What recurd does with a reading, as a Kafka Streams application: parse, fetch the stream's row, scale, one LSTM step, head and
 * highway, JSON of 72 numbers out, row back. `benchmarks/streams.py` compiles it, runs it and measures it.
 *
 * <p>It does the work that a forecast needs and no more: recurd also scores, calibrates and adapts. It is written to be fast:
 * rows are bytes, products and activations are vectors, and nothing is allocated but what Kafka keeps.
 *
 * <p>Settings are a properties file: those of Kafka Streams, and ours, which begin with `forecasts.`.
 */
public final class Forecasts {
    /** Readings that were processed; what runs in several threads adds to it. */
    static final LongAdder PROCESSED = new LongAdder();

    private Forecasts() {}

    public static void main(String[] arguments) throws IOException {
        Properties settings = new Properties();
        try (Reader file = Files.newBufferedReader(Path.of(arguments[0]))) {
            settings.load(file);
        }
        if (settings.containsKey("forecasts.check")) {
            check(settings);
        } else {
            serve(settings);
        }
    }

    /** Runs until standard input ends; each line of it is answered by the state and the number of readings processed. */
    private static void serve(Properties settings) throws IOException {
        try (KafkaStreams streams = new KafkaStreams(topology(settings), settings)) {
            streams.start();
            BufferedReader questions = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            while (questions.readLine() != null) {
                System.out.println(streams.state() + " " + PROCESSED.sum());
            }
        }
        System.out.println("CLOSED " + PROCESSED.sum());
    }

    private static Topology topology(Properties settings) {
        boolean inMemory = settings.getProperty("forecasts.store").equals("memory");
        KeyValueBytesStoreSupplier supplier =
                inMemory ? Stores.inMemoryKeyValueStore("rows") : Stores.persistentKeyValueStore("rows");
        StoreBuilder<KeyValueStore<String, byte[]>> rows =
                Stores.keyValueStoreBuilder(supplier, Serdes.String(), Serdes.ByteArray())
                        .withCachingEnabled()
                        .withLoggingEnabled(Map.of());
        Path weights = Path.of(settings.getProperty("forecasts.weights"));
        boolean network = Boolean.parseBoolean(settings.getProperty("forecasts.network"));
        return new Topology()
                .addSource(
                        "readings",
                        new ByteArrayDeserializer(),
                        new ByteArrayDeserializer(),
                        settings.getProperty("forecasts.input"))
                .addProcessor("forecaster", () -> new Forecaster(network ? Network.read(weights) : null), "readings")
                .addStateStore(rows, "forecaster")
                .addSink(
                        "forecasts",
                        settings.getProperty("forecasts.output"),
                        new StringSerializer(),
                        new ByteArraySerializer(),
                        "forecaster");
    }

    /** One step of the network from numbers in a file; its results into another, to be held against recurd's. */
    private static void check(Properties settings) {
        Network network = Network.read(Path.of(settings.getProperty("forecasts.weights")));
        FloatBuffer given = Floats.read(Path.of(settings.getProperty("forecasts.check")));
        given.get(network.features).get(network.window).get(network.hidden).get(network.cell);
        network.step();
        Floats.write(Path.of(settings.getProperty("forecasts.output")), network.quantiles, network.hidden, network.cell);
    }
}

/** Takes readings one by one: the whole path from the bytes of a reading to those of its forecast. */
final class Forecaster implements Processor<byte[], byte[], String, byte[]> {
    private static final JsonFactory JSON = JsonFactory.builder().enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER).build();

    /** Quantiles where no network runs, in spreads from the reading. */
    private static final float[] UNTRAINED = {-0.5f, 0, 0.5f};

    private final Network network; // null: state and JSON alone
    private final double[] quantiles = new double[Network.LEADS * Network.LEVELS];
    private final Row row = new Row();
    private final Text text = new Text();
    private ProcessorContext<String, byte[]> context;
    private KeyValueStore<String, byte[]> rows;

    Forecaster(Network network) {
        this.network = network;
    }

    @Override
    public void init(ProcessorContext<String, byte[]> context) {
        this.context = context;
        this.rows = context.getStateStore("rows");
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        String stream = null;
        long timeMs = 0;
        double value = 0;
        try (JsonParser fields = JSON.createParser(record.value())) {
            fields.nextToken();
            while (fields.nextToken() == JsonToken.FIELD_NAME) {
                String name = fields.currentName();
                fields.nextToken();
                switch (name) {
                    case "stream" -> stream = fields.getText();
                    case "time" -> timeMs = fields.getLongValue();
                    case "value" -> value = fields.getDoubleValue();
                    default -> fields.skipChildren();
                }
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        row.take(rows.get(stream));
        if (row.isLate(timeMs)) {
            return;
        }
        row.observe(timeMs, value);
        forecast(value);
        rows.put(stream, row.bytes());
        text.forecast(stream, timeMs, row, quantiles);
        context.forward(new Record<>(stream, text.bytes(), record.timestamp(), source()));
        Forecasts.PROCESSED.increment();
    }

    /** Quantiles in sensor units, ordered at each lead, from the row as it is after this reading. */
    private void forecast(double value) {
        if (network != null) {
            row.load(network);
            network.step();
            row.store(network);
        }
        double spread = row.spread();
        for (int i = 0; i < quantiles.length; i += Network.LEVELS) {
            float[] raw = network == null ? UNTRAINED : network.quantiles;
            int at = network == null ? 0 : i;
            float a = raw[at];
            float b = raw[at + 1];
            float c = raw[at + 2];
            float low = Math.min(a, Math.min(b, c));
            float high = Math.max(a, Math.max(b, c));
            quantiles[i] = value + spread * low;
            quantiles[i + 1] = value + spread * Math.max(Math.min(a, b), Math.min(Math.max(a, b), c));
            quantiles[i + 2] = value + spread * high;
        }
        row.expect(quantiles[1]);
    }

    /** The header `source`: partition, offset and index of the reading. */
    private Headers source() {
        RecordMetadata place = context.recordMetadata().orElseThrow();
        String source = place.partition() + "," + place.offset() + ",0";
        return new RecordHeaders().add(new RecordHeader("source", source.getBytes(StandardCharsets.ISO_8859_1)));
    }
}

/**
 * A stream's state as bytes, as large as recurd's row: what it keeps for scoring, calibration and adaptation is carried unread.
 * The window is shifted as bytes; only what the network reads becomes floats.
 */
final class Row {
    static final int BYTES = 2624;
    static final int WINDOW = 128;
    static final int PHASES = 48;

    private static final int COUNT = 0;
    private static final int LAST_TIME = 8;
    private static final int INTERVAL = 16;
    private static final int ANCHOR = 24;
    private static final int LEVEL = 32;
    private static final int SPREAD = 40;
    private static final int EXPECTED = 48;
    private static final int HIDDEN_AT = 56;
    private static final int CELL_AT = HIDDEN_AT + 4 * Network.HIDDEN;
    private static final int WINDOW_AT = CELL_AT + 4 * Network.HIDDEN;
    private static final int PROFILE_AT = WINDOW_AT + 4 * WINDOW;

    private static final double FIRST_SPREAD = 0.02; // of the first reading's magnitude
    private static final double SPREAD_PER_DEVIATION = 1.25;
    private static final double SCALE_RATE = 1 - Math.pow(2, -1 / 168.0);
    private static final float SEASON_RATE = 1 / 14f;
    private static final float CLIP = 8;
    private static final float MOST_SURPRISING = 6;
    private static final int WARMING = 32;
    private static final long DAY_MS = 86_400_000;
    private static final float[] DAY = circle(24 * 60);
    private static final float[] WEEK = circle(7 * 24);

    private ByteBuffer bytes;
    private double previous;
    private double value;
    private float surprise;
    private float gap;

    private static float[] circle(int steps) {
        float[] points = new float[2 * steps];
        for (int i = 0; i < steps; i++) {
            points[2 * i] = (float) Math.sin(2 * Math.PI * i / steps);
            points[2 * i + 1] = (float) Math.cos(2 * Math.PI * i / steps);
        }
        return points;
    }

    /** Begins with a copy of what the store holds; null is a new stream. */
    void take(byte[] stored) {
        bytes = ByteBuffer.wrap(stored == null ? new byte[BYTES] : stored.clone()).order(ByteOrder.LITTLE_ENDIAN);
    }

    byte[] bytes() {
        return bytes.array();
    }

    boolean isLate(long timeMs) {
        return bytes.getLong(COUNT) > 0 && timeMs <= bytes.getLong(LAST_TIME);
    }

    boolean warming() {
        return bytes.getLong(COUNT) < WARMING;
    }

    long interval() {
        return bytes.getLong(INTERVAL);
    }

    float surprise() {
        return surprise;
    }

    double spread() {
        return SPREAD_PER_DEVIATION * bytes.getDouble(SPREAD);
    }

    /** Keeps the median of the first lead, by which the next reading's surprise is told. */
    void expect(double median) {
        bytes.putDouble(EXPECTED, median);
    }

    /** Scale, interval, window and season move by one reading. */
    void observe(long timeMs, double value) {
        long count = bytes.getLong(COUNT);
        if (count == 0) {
            bytes.putDouble(ANCHOR, value).putDouble(LEVEL, value).putDouble(EXPECTED, value);
            bytes.putDouble(SPREAD, Math.max(Math.abs(value) * FIRST_SPREAD, 1e-6));
            previous = value;
        } else {
            previous = bytes.getDouble(ANCHOR) + bytes.getFloat(WINDOW_AT + 4 * (WINDOW - 1));
            moveInterval(timeMs - bytes.getLong(LAST_TIME));
            moveScale(value, Math.max(SCALE_RATE, 1.0 / (count + 1)));
        }
        this.value = value;
        surprise = (float) Math.min(Math.abs(value - bytes.getDouble(EXPECTED)) / spread(), MOST_SURPRISING);
        bytes.putLong(COUNT, count + 1).putLong(LAST_TIME, timeMs);
        System.arraycopy(bytes.array(), WINDOW_AT + 4, bytes.array(), WINDOW_AT, 4 * (WINDOW - 1));
        bytes.putFloat(WINDOW_AT + 4 * (WINDOW - 1), (float) (value - bytes.getDouble(ANCHOR)));
        int phase = PROFILE_AT + 4 * phase(timeMs);
        float usual = bytes.getFloat(phase);
        bytes.putFloat(phase, usual + SEASON_RATE * ((float) (value - bytes.getDouble(LEVEL)) - usual));
    }

    private void moveInterval(long gapMs) {
        long interval = bytes.getLong(INTERVAL);
        gap = interval == 0 ? 1 : Math.min((float) gapMs / interval, CLIP);
        bytes.putLong(INTERVAL, gapMs);
    }

    private void moveScale(double value, double rate) {
        double level = bytes.getDouble(LEVEL);
        double deviation = bytes.getDouble(SPREAD);
        bytes.putDouble(LEVEL, level + rate * (value - level));
        bytes.putDouble(SPREAD, Math.max(deviation + rate * (Math.abs(value - level) - deviation), 1e-6));
    }

    private static int phase(long timeMs) {
        return (int) (timeMs % DAY_MS * PHASES / DAY_MS);
    }

    /** Gives the network its inputs: features, the window in spreads from the reading with the season ahead behind it, state. */
    void load(Network network) {
        long timeMs = bytes.getLong(LAST_TIME);
        float scale = (float) (1 / spread());
        floats(WINDOW_AT).get(network.window, 0, WINDOW);
        float newest = network.window[WINDOW - 1];
        for (int i = 0; i < WINDOW; i++) {
            network.window[i] = (network.window[i] - newest) * scale;
        }
        for (int lead = 1; lead <= Network.LEADS; lead++) {
            network.window[WINDOW + lead - 1] = scale * bytes.getFloat(PROFILE_AT + 4 * phase(timeMs + lead * interval()));
        }
        loadFeatures(network.features, network.window, timeMs, scale);
        floats(HIDDEN_AT).get(network.hidden);
        floats(CELL_AT).get(network.cell);
    }

    private void loadFeatures(float[] features, float[] window, long timeMs, float scale) {
        features[0] = clip(scale * (float) (value - bytes.getDouble(LEVEL)));
        features[1] = clip(scale * (float) (value - previous));
        for (int i = 0; i < 4; i++) {
            features[2 + i] = clip(window[WINDOW + Math.max(Network.LEADS * i / 4 - 1, 0)]);
        }
        features[7] = gap;
        int minute = (int) (timeMs / 60_000 % (24 * 60));
        int hour = (int) (timeMs / 3_600_000 % (7 * 24));
        System.arraycopy(DAY, 2 * minute, features, 8, 2);
        System.arraycopy(WEEK, 2 * hour, features, 10, 2);
    }

    private static float clip(float value) {
        return Math.max(-CLIP, Math.min(CLIP, value));
    }

    /** Keeps the network's new state. */
    void store(Network network) {
        floats(HIDDEN_AT).put(network.hidden);
        floats(CELL_AT).put(network.cell);
    }

    private FloatBuffer floats(int at) {
        return bytes.position(at).slice().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
    }
}

/**
 * recurd's network (`models/networks.py`): one LSTM layer, a head of 24 leads x 3 levels, a linear highway from the window to the
 * leads. Weights stand on the right of a product, row-major, so that all loops over columns are unit-stride vectors.
 */
final class Network {
    static final int FEATURES = 16;
    static final int HIDDEN = 64;
    static final int LEADS = 24;
    static final int LEVELS = 3;
    static final int SEEN = 160; // window, season ahead, padding

    private static final VectorSpecies<Float> LANES = FloatVector.SPECIES_256;
    private static final int WIDTH = 8;

    final float[] features = new float[FEATURES];
    final float[] window = new float[SEEN];
    final float[] hidden = new float[HIDDEN];
    final float[] cell = new float[HIDDEN];
    final float[] quantiles = new float[LEADS * LEVELS]; // lead by lead, in spreads from the reading

    private final float[] weightIn = new float[FEATURES * 4 * HIDDEN];
    private final float[] weightHidden = new float[HIDDEN * 4 * HIDDEN];
    private final float[] bias = new float[4 * HIDDEN];
    private final float[] headWeight = new float[HIDDEN * LEADS * LEVELS];
    private final float[] headBias = new float[LEADS * LEVELS];
    private final float[] highway = new float[SEEN * LEADS];
    private final float[] gates = new float[4 * HIDDEN];
    private final float[] ahead = new float[LEADS];

    static Network read(Path file) {
        Network network = new Network();
        FloatBuffer weights = Floats.read(file);
        weights.get(network.weightIn).get(network.weightHidden).get(network.bias);
        weights.get(network.headWeight).get(network.headBias).get(network.highway);
        return network;
    }

    /** Advances hidden and cell by one reading and forecasts from them. */
    void step() {
        System.arraycopy(bias, 0, gates, 0, gates.length);
        addProduct(features, weightIn, gates);
        addProduct(hidden, weightHidden, gates);
        for (int i = 0; i < HIDDEN; i += WIDTH) {
            FloatVector enter = sigmoid(FloatVector.fromArray(LANES, gates, i));
            FloatVector keep = sigmoid(FloatVector.fromArray(LANES, gates, HIDDEN + i));
            FloatVector candidate = tanh(FloatVector.fromArray(LANES, gates, 2 * HIDDEN + i));
            FloatVector leave = sigmoid(FloatVector.fromArray(LANES, gates, 3 * HIDDEN + i));
            FloatVector memory = keep.mul(FloatVector.fromArray(LANES, cell, i)).add(enter.mul(candidate));
            memory.intoArray(cell, i);
            leave.mul(tanh(memory)).intoArray(hidden, i);
        }
        System.arraycopy(headBias, 0, quantiles, 0, quantiles.length);
        addProduct(hidden, headWeight, quantiles);
        Arrays.fill(ahead, 0);
        addProduct(window, highway, ahead);
        for (int i = 0; i < quantiles.length; i++) {
            quantiles[i] += ahead[i / LEVELS];
        }
    }

    /** Adds the product of a row of inputs and a matrix to the sums, of which there are a multiple of 64 or of 24. */
    private static void addProduct(float[] inputs, float[] weights, float[] sums) {
        int columns = sums.length;
        if (columns % (8 * WIDTH) == 0) {
            for (int column = 0; column < columns; column += 8 * WIDTH) {
                addEight(inputs, weights, sums, column);
            }
        } else {
            for (int column = 0; column < columns; column += 3 * WIDTH) {
                addThree(inputs, weights, sums, column);
            }
        }
    }

    /** 64 columns, whose sums stay in registers. */
    private static void addEight(float[] inputs, float[] weights, float[] sums, int column) {
        FloatVector a = FloatVector.fromArray(LANES, sums, column);
        FloatVector b = FloatVector.fromArray(LANES, sums, column + WIDTH);
        FloatVector c = FloatVector.fromArray(LANES, sums, column + 2 * WIDTH);
        FloatVector d = FloatVector.fromArray(LANES, sums, column + 3 * WIDTH);
        FloatVector e = FloatVector.fromArray(LANES, sums, column + 4 * WIDTH);
        FloatVector f = FloatVector.fromArray(LANES, sums, column + 5 * WIDTH);
        FloatVector g = FloatVector.fromArray(LANES, sums, column + 6 * WIDTH);
        FloatVector h = FloatVector.fromArray(LANES, sums, column + 7 * WIDTH);
        for (int i = 0, at = column; i < inputs.length; i++, at += sums.length) {
            FloatVector input = FloatVector.broadcast(LANES, inputs[i]);
            a = input.fma(FloatVector.fromArray(LANES, weights, at), a);
            b = input.fma(FloatVector.fromArray(LANES, weights, at + WIDTH), b);
            c = input.fma(FloatVector.fromArray(LANES, weights, at + 2 * WIDTH), c);
            d = input.fma(FloatVector.fromArray(LANES, weights, at + 3 * WIDTH), d);
            e = input.fma(FloatVector.fromArray(LANES, weights, at + 4 * WIDTH), e);
            f = input.fma(FloatVector.fromArray(LANES, weights, at + 5 * WIDTH), f);
            g = input.fma(FloatVector.fromArray(LANES, weights, at + 6 * WIDTH), g);
            h = input.fma(FloatVector.fromArray(LANES, weights, at + 7 * WIDTH), h);
        }
        a.intoArray(sums, column);
        b.intoArray(sums, column + WIDTH);
        c.intoArray(sums, column + 2 * WIDTH);
        d.intoArray(sums, column + 3 * WIDTH);
        e.intoArray(sums, column + 4 * WIDTH);
        f.intoArray(sums, column + 5 * WIDTH);
        g.intoArray(sums, column + 6 * WIDTH);
        h.intoArray(sums, column + 7 * WIDTH);
    }

    /** 24 columns, whose sums stay in registers. */
    private static void addThree(float[] inputs, float[] weights, float[] sums, int column) {
        FloatVector a = FloatVector.fromArray(LANES, sums, column);
        FloatVector b = FloatVector.fromArray(LANES, sums, column + WIDTH);
        FloatVector c = FloatVector.fromArray(LANES, sums, column + 2 * WIDTH);
        for (int i = 0, at = column; i < inputs.length; i++, at += sums.length) {
            FloatVector input = FloatVector.broadcast(LANES, inputs[i]);
            a = input.fma(FloatVector.fromArray(LANES, weights, at), a);
            b = input.fma(FloatVector.fromArray(LANES, weights, at + WIDTH), b);
            c = input.fma(FloatVector.fromArray(LANES, weights, at + 2 * WIDTH), c);
        }
        a.intoArray(sums, column);
        b.intoArray(sums, column + WIDTH);
        c.intoArray(sums, column + 2 * WIDTH);
    }

    private static FloatVector sigmoid(FloatVector x) {
        return tanh(x.mul(0.5f)).mul(0.5f).add(0.5f);
    }

    /** A quotient of polynomials, as in Eigen: off by a few units in the last place, at a tenth of the time of Math.tanh. */
    private static FloatVector tanh(FloatVector x) {
        FloatVector v = x.max(-7.9f).min(7.9f);
        FloatVector q = v.mul(v);
        FloatVector above =
                horner(q, -2.76076847742355e-16f, 2.00018790482477e-13f)
                        .fma(q, all(-8.60467152213735e-11f))
                        .fma(q, all(5.12229709037114e-08f))
                        .fma(q, all(1.48572235717979e-05f))
                        .fma(q, all(6.37261928875436e-04f))
                        .fma(q, all(4.89352455891786e-03f));
        FloatVector below =
                horner(q, 1.19825839466702e-06f, 1.18534705686654e-04f)
                        .fma(q, all(2.26843463243900e-03f))
                        .fma(q, all(4.89352518554385e-03f));
        return v.mul(above).div(below);
    }

    private static FloatVector horner(FloatVector q, float first, float second) {
        return all(first).fma(q, all(second));
    }

    private static FloatVector all(float value) {
        return FloatVector.broadcast(LANES, value);
    }
}

/** A forecast as JSON, in recurd's fields and to six significant digits. */
final class Text {
    private static final String[] LEVELS = {"0.1", "0.5", "0.9"};
    private static final int TENS_AT_0 = 16;
    private static final double[] TENS = new double[2 * TENS_AT_0 + 1]; // powers of ten from -16 to 16
    private static final int LEAST_EXPONENT = -14; // of 1e-4
    private static final int[] DECADES = new int[64]; // digits before the point of 2^exponent
    private static final byte[] THREE_DIGITS = new byte[3000];

    static {
        for (int i = 0; i < TENS.length; i++) {
            TENS[i] = Double.parseDouble("1e" + (i - TENS_AT_0));
        }
        for (int i = 0; i < 1000; i++) {
            THREE_DIGITS[3 * i] = (byte) ('0' + i / 100);
            THREE_DIGITS[3 * i + 1] = (byte) ('0' + i / 10 % 10);
            THREE_DIGITS[3 * i + 2] = (byte) ('0' + i % 10);
        }
        for (int i = 0; i < DECADES.length; i++) {
            DECADES[i] = (int) Math.floor(Math.log10(Math.scalb(1.0, i + LEAST_EXPONENT))) + 1;
        }
    }

    private byte[] bytes = new byte[4096];
    private int end;

    byte[] bytes() {
        return Arrays.copyOf(bytes, end);
    }

    void forecast(String stream, long timeMs, Row row, double[] quantiles) {
        end = 0;
        words("{\"stream\":\"").words(stream).words("\",\"time\":\"");
        time(timeMs);
        words("\",\"interval_ms\":").natural(row.interval());
        words(",\"model_version\":\"seeded\",\"targets\":{\"value\":{");
        for (int level = 0; level < LEVELS.length; level++) {
            words(level == 0 ? "\"" : ",\"").words(LEVELS[level]).words("\":[");
            for (int i = level; i < quantiles.length; i += LEVELS.length) {
                if (i > level) {
                    bytes[end++] = ',';
                }
                number(quantiles[i]);
            }
            bytes[end++] = ']';
        }
        words("}},\"anomaly_score\":").number(row.surprise());
        words(",\"warming\":").words(row.warming() ? "true}" : "false}");
    }

    /** Room for what comes is left by `words`, which is called at least once before every 24 numbers. */
    @SuppressWarnings("deprecation") // getBytes of the low bytes alone: the fastest for ASCII
    private Text words(String words) {
        if (bytes.length < end + words.length() + 1024) {
            bytes = Arrays.copyOf(bytes, 2 * bytes.length + words.length());
        }
        words.getBytes(0, words.length(), bytes, end);
        end += words.length();
        return this;
    }

    private void time(long timeMs) {
        LocalDate date = LocalDate.ofEpochDay(Math.floorDiv(timeMs, 86_400_000L));
        int inDay = (int) Math.floorMod(timeMs, 86_400_000L);
        padded(date.getYear(), 4).words("-").padded(date.getMonthValue(), 2).words("-").padded(date.getDayOfMonth(), 2);
        words("T").padded(inDay / 3_600_000, 2).words(":").padded(inDay / 60_000 % 60, 2);
        words(":").padded(inDay / 1000 % 60, 2).words(".").padded(inDay % 1000, 3).words("Z");
    }

    /** A number to six significant digits: 20.0, 0.00123457, 1234570.0. */
    private void number(double number) {
        double magnitude = Math.abs(number);
        if (number < 0) {
            bytes[end++] = '-';
        }
        if (!(magnitude >= 1e-4 && magnitude < 1e15)) {
            words(Double.toString(magnitude));
            return;
        }
        int before = DECADES[Math.getExponent(magnitude) - LEAST_EXPONENT];
        if (magnitude >= TENS[before + TENS_AT_0]) {
            before++;
        }
        int shift = 6 - before;
        int digits = (int) (shift >= 0 ? magnitude * TENS[shift + TENS_AT_0] + 0.5 : magnitude / TENS[TENS_AT_0 - shift] + 0.5);
        if (digits == 1_000_000) {
            digits = 100_000;
            before++;
        }
        if (before <= 0) {
            bytes[end++] = '0';
            bytes[end++] = '.';
            zeros(-before);
            sixDigits(digits);
            dropZeros(end - 5);
        } else if (before < 6) {
            sixDigits(digits);
            System.arraycopy(bytes, end - 6 + before, bytes, end - 5 + before, 6 - before);
            bytes[end - 6 + before] = '.';
            end++;
            dropZeros(end - 5 + before);
        } else {
            sixDigits(digits);
            zeros(before - 6);
            bytes[end++] = '.';
            bytes[end++] = '0';
        }
    }

    private void sixDigits(int digits) {
        int high = 3 * (digits / 1000);
        int low = 3 * (digits % 1000);
        bytes[end] = THREE_DIGITS[high];
        bytes[end + 1] = THREE_DIGITS[high + 1];
        bytes[end + 2] = THREE_DIGITS[high + 2];
        bytes[end + 3] = THREE_DIGITS[low];
        bytes[end + 4] = THREE_DIGITS[low + 1];
        bytes[end + 5] = THREE_DIGITS[low + 2];
        end += 6;
    }

    private void zeros(int count) {
        for (int i = 0; i < count; i++) {
            bytes[end++] = '0';
        }
    }

    /** Leaves out zeros at the end, as long as that is behind a place. */
    private void dropZeros(int least) {
        while (end > least && bytes[end - 1] == '0') {
            end--;
        }
    }

    private Text natural(long number) {
        return words(Long.toString(number));
    }

    private Text padded(int number, int width) {
        int rest = number;
        for (int at = end + width - 1; at >= end; at--, rest /= 10) {
            bytes[at] = (byte) ('0' + rest % 10);
        }
        end += width;
        return this;
    }
}

/** Files of float32, little-endian. */
final class Floats {
    private Floats() {}

    static FloatBuffer read(Path file) {
        try {
            return ByteBuffer.wrap(Files.readAllBytes(file)).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    static void write(Path file, float[]... parts) {
        int count = Arrays.stream(parts).mapToInt(part -> part.length).sum();
        ByteBuffer bytes = ByteBuffer.allocate(4 * count).order(ByteOrder.LITTLE_ENDIAN);
        FloatBuffer floats = bytes.asFloatBuffer();
        for (float[] part : parts) {
            floats.put(part);
        }
        try {
            Files.write(file, bytes.array());
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
